"""The neural network: its definition, runtimes, training and export, and the shipped weights and configurations."""
