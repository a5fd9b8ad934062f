from tests.trainers import make_family, make_from, make_of, make_trainer
from tests.training.objective_cases import make_case

__all__ = ["make_case", "make_family", "make_from", "make_of", "make_trainer"]
