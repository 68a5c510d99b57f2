// Package nn holds layers: structs of parameters with a Forward method.
//
// A model is a struct whose exported fields are layers, and a Forward of its
// own; [tensor.Pack] finds the parameters by walking the fields. Names, gate
// order (i,f,g,o and r,z,n), layouts and semantics are PyTorch's, so its weights
// load without mapping; where a default differs the comment says so.
package nn
