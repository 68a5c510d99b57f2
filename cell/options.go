package cell

// Options changes the arithmetic of a cell. The zero value is the cell of its row of
// [Table].
type Options struct {
	GateAct Activation // LSTM i,f,o; GRU r,z
	InAct   Activation // LSTM g; GRU n; RNN
	OutAct  Activation // LSTM: of c before the output gate

	GateClip float32 // above 0: pre-activations are clamped to [-GateClip, GateClip] (ONNX's clip)
	CellClip float32 // above 0: c is clamped to [-CellClip, CellClip] (cuDNN's and TFLite's clip)

	// Probabilities in [0,1).
	HDrop        float32 // in training: dropout of h before the product with R, one mask per sequence (Gal and Ghahramani 2016)
	WeightDrop   float32 // in training: dropout of the elements of R, one mask per pass (Merity et al. 2018)
	ZoneH, ZoneC float32 // that a unit of h or c keeps its old value; at inference, the expectation is used (Krueger et al. 2017)

	Custom RowCell // of a [Custom] cell
}
