"""What is worth a model's time: rules about one text, each a small pure function that answers None or a Reject; and
near-duplicates, which are about all texts.

`stages/stage2_filter.py` puts them in order.
"""
