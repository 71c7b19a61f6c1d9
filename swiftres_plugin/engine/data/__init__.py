"""Room 0: the nouns. Frozen dataclasses that check their shapes, index by rows and do arithmetic on their own fields."""
