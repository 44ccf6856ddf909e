"""Images and masks: found and paired, decoded once, augmented, and handed out as batches.

`pairs` finds out which mask belongs to which image and into which split; `pixels` reads them and keeps the decoded
cache; `augment` alters training samples; `loader` makes batches; `synthetic` generates data. Training, scores, the
gate and the search's checks import it.

Layer 1.
"""
