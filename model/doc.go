// Package model stores models on disk: a safetensors reader and writer, atomic
// file replacement, and the model directory. For weights from other frameworks
// it describes their layers ([Architecture]), creates those layers ([Build])
// and compares their results with a reference ([Network.Check]).
//
// A model directory holds config.json, model.safetensors and other files that a
// task needs. config.json records the format and lists the files with their
// sizes and checksums, so that a file that is truncated, altered or of another
// save is reported when the model is opened, instead of changing its
// predictions. [Save] replaces a model as a whole.
//
// Weights are stored under PyTorch's parameter names, as float32, in the public
// safetensors layout (https://github.com/huggingface/safetensors): a little-endian
// uint64 header length, a JSON header, then the tensors' bytes. Weights that rest in fewer bits are in
// types of these; [Tensor] says which.
package model
