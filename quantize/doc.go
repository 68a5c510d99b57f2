// Package quantize lets a trained model's weight matrices rest in 4, 8 or 16 bits, and decides
// on the user's own data whether that is worth it.
//
// A matrix in 8 bits is integers of at most 127 with a scale for each row, an output; a row of
// its input is rounded likewise while the model computes (tensor.Int8). Everything else stays
// float32. In 4 bits a weight is one of 15 of these integers; the rows of a matrix are rounded with
// error feedback from the inputs that it meets on calibration rows, and only files are smaller than
// in 8 bits.
//
// [Run] rounds the matrices, measures what that costs on rows that nothing was chosen by, lets the
// matrices that cost most rest in more bits or stay in float32 until the accuracy holds, times both
// models side by side, and says in its [Report] whether the model should be used. [Graph] does so
// for an ONNX graph, as far as a graph without labelled rows allows.
package quantize

// Files in the directory of a quantized model.
const (
	ReportFile = "quantize.json" // the report, as the command prints it
	PageFile   = "quantize.html" // the same for people
)
