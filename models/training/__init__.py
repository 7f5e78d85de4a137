"""Training of the recurrent network: batches, loss, trainer, and the run folder that it writes."""
