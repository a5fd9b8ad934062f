from tests.trainers import make_of

__all__ = ["make_of"]
