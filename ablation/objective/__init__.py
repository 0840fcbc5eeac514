"""From the network's heads and the ground truth to one number: assignment, then the loss."""
