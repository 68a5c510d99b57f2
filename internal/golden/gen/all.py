"""Writes every reference file anew: python3 internal/golden/gen/all.py

Needs PyTorch 1.13 or later, such as Debian's package python3-torch, and nothing else.
"""
import sys

sys.dont_write_bytecode = True  # leave nothing beside the scripts

import classifying
import convolutions
import crf
import language
import layers
import losses
import optimizers
import rnn
import scaler
import schedules
import tagging
import training
import translation

for module in (rnn, losses, optimizers, scaler, schedules, layers, convolutions, crf, training, classifying, tagging, translation):
    module.main()
