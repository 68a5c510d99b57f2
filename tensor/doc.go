// Package tensor is the numeric core: float32 tensors, a tape that
// differentiates coarse operations, and the slab that holds parameters.
//
// An operation is a forward and backward pair for a layer over a whole sequence, so a
// training step is a few dozen nodes. Tensors refer to their tape: [Tape.Input] makes
// one, and operations find the tape in their operands; parameters have none. Training
// or inference is a property of the tape, not of the model, so several goroutines may
// use one model, each with its own tape.
//
// Tensors also carry the lengths of their rows: [Tape.Sequences] makes a padded batch
// with lengths. [LastStep], [MeanPool], [MaxPool], recurrent layers and losses use only
// the true steps of each row, so the contents of the padding change no result.
//
// Letters for dimensions in all packages: B batch, T time, I input, H hidden units, O
// width of the output, C width of the states beside h, G gates, V vocabulary or
// classes, D directions or width of a vector, F features.
//
// Operands that do not fit are programming errors: the operation panics with a
// [*ShapeError] that has its name and the shapes. [Catch] and [Recover] turn the panic
// into an error.
package tensor
