"""The law that no option of a recipe is without effect, section by section.

`options.py` takes the options from the schema, so that a new one is found; `law.py` states the law; `sights.py` shows
what a recipe does. The test modules say for each part and section where an effect is seen, and `test_every_option.py`
holds that none is missing.
"""
