"""Image networks whose stages are gated by SLCA: the paper's classifiers, on cached features.

The store gives each image's pooled features and its pixels, so that the frozen encoder is never run in
training. `net` holds the network, `gates` and `resize` what it adds, `cost` what that costs.
"""
