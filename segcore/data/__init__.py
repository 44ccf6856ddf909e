"""Images and masks: found and paired, decoded once, augmented, and handed out as batches.

`pairs` decides which mask belongs to which image and in which split; `pixels` reads them and keeps the decoded cache;
`augment` changes training samples; `loader` makes batches; `synthetic` generates data. Imported by training, scores,
the gate and the search's checks.

Layer 1.
"""
