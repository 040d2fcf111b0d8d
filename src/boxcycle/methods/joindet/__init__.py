"""JoinDet: Wang et al., "Unsupervised Object Detection Pretraining with Joint Object Priors Generation and Detector
Learning", NeurIPS 2022. The priors that it learns from; the pretraining itself is not here yet.
"""
