"""JoinDet: Wang et al., "Joint Object Detection Pretraining", NeurIPS 2022: the priors that it learns from."""
