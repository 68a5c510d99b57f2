// Package optim turns gradients into better weights: the update rules SGD,
// Adam, AdamW and RMSprop with PyTorch's arithmetic, clipping in PyTorch's
// definition, learning-rate schedules, and the moving average of the weights.
//
// Everything works on the vectors of a [tensor.Slab], so a step is a few calls
// to the device however many parameters there are, and allocates nothing.
//
// One default differs from PyTorch: weight decay leaves alone the parameters
// marked NoDecay (biases and norms), unless the options say DecayAll.
package optim
