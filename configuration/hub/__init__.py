"""What stands beside the weights on the Hub: code and model card."""
