from tests.trainers import make_family, make_from, make_of, make_trainer

__all__ = ["make_family", "make_from", "make_of", "make_trainer"]
