"""What a training takes beside `Trainer`: callbacks, parameter groups, adapters."""
