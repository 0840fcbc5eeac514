"""What a run finds out about its own confidence loss: small JSON files in its folder, no effect on it.

gradients.json        epoch by epoch: where the gradient of each term goes
gradient_norms.json   the final model's gradient, cell by cell, as histograms
objectness.json       the final model's objectness at positives and at negatives of val
loss_cdf.json         how much of the loss the easy cells hold, for the arm's loss and for families
score_inversion.json  the probability that a score of this loss means
"""
