// Package nn has layers: structs of parameters with a Forward method.
//
// A model is a struct whose exported fields are layers, with a Forward method;
// [tensor.Pack] finds the parameters in the fields. Names, gate order (i,f,g,o and
// r,z,n), layouts and semantics are PyTorch's, so its weights load without conversion;
// comments state where a default differs.
//
// Constructors panic with a [*tensor.UseError] for invalid options, Forward methods with
// a [*tensor.ShapeError] for operands that do not fit; [tensor.Catch] and
// [tensor.Recover] turn both into errors.
package nn
