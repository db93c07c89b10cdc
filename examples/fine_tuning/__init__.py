"""What run_mner.py and run_mner_no_trainer.py share: arguments, data, images, model, and what surrounds a training."""
