// Package optim updates weights from gradients: the update rules SGD, Adam,
// AdamW and RMSprop with PyTorch's arithmetic, clipping as PyTorch defines it,
// learning-rate schedules, a moving average of the weights, and the scaling of
// losses that training in float16 needs.
//
// Everything works on the vectors of a [tensor.Slab], so a step is a few calls
// to the device whatever the number of parameters, and allocates nothing.
//
// One default differs from PyTorch: weight decay skips the parameters marked
// NoDecay (biases and norms) unless the options set DecayAll.
package optim
