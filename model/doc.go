// Package model keeps models on disk: a safetensors reader and writer, files
// replaced atomically, and the model directory. For weights that come from
// elsewhere it holds what layers they are of ([Architecture]), makes those layers
// ([Build]) and compares what they compute with a reference ([Network.Check]).
//
// A model directory holds config.json, model.safetensors and what else a task needs.
// config.json says which format wrote it, and lists the files with their sizes and
// checksums, so that one that is cut, altered or of another save is an error when
// the model is opened, not a strange forecast later. [Save] replaces a model as a
// whole.
//
// Weights are stored under PyTorch's parameter names, as float32, in the public
// safetensors layout (https://github.com/huggingface/safetensors): a little-endian
// uint64 header length, a JSON header, then the tensors' bytes.
package model
