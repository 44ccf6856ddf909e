"""Where the sealed model is sent: one file a target, each copy verified.

Imported by the stages that export and predict. `targets/` declares the targets, `search.config.choices` finds them
there; `yandex/` is what one of them is built of.

Layer 3.
"""
