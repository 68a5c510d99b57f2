// Package tensor is the numeric core: float32 tensors, a tape that
// differentiates coarse operations, and the slab that holds parameters.
//
// One operation is a forward and backward pair the size of a layer over a whole
// sequence, so a training step is a few dozen nodes. The tape rides on the
// tensor: [Tape.Input] makes a tensor that knows its tape, operations take it
// from their operands, and parameters have none. Whether a tape trains or infers
// is the tape's mode, not the model's, so one model serves many goroutines, each
// with its own tape.
//
// Lengths ride on the tensor too: [Tape.Sequences] makes a padded batch whose
// rows know where they end. [LastStep], [MeanPool], [MaxPool], the recurrent layers and the
// losses use only each row's true steps, and what lies in the padding can change
// no result.
//
// Letters for dimensions, here and everywhere: B batch, T time, I input,
// H hidden, G gates, S states, V vocabulary, D directions, F features.
//
// A shape that does not fit is a programmer's mistake and panics with a
// [*ShapeError] that names the operation and the shapes; [Catch] turns it into
// an error at a border.
package tensor
