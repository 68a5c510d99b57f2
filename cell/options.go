package cell

// Options changes the arithmetic of a cell. The zero value is the cell as its row
// of the table says.
type Options struct {
	GateAct Activation // LSTM i,f,o; GRU r,z
	InAct   Activation // LSTM g; GRU n; Elman's only one
	OutAct  Activation // LSTM: of c, before the output gate

	GateClip float32 // above 0: pre-activations are clamped to [-GateClip, GateClip] (ONNX's clip)
	CellClip float32 // above 0: so is c (cuDNN's and TFLite's clip)

	HDrop        float32 // in training: probability of zero in the h that enters R, one mask a sequence, the rest scaled by 1/(1-HDrop) (Gal and Ghahramani 2016)
	WeightDrop   float32 // in training: likewise of R's elements, one mask a pass (Merity et al. 2018)
	ZoneH, ZoneC float32 // probability that a unit of h or c keeps its old value; elsewhere than in training, the mean (Krueger et al. 2017)

	Custom RowCell // the code of a [Custom] cell
}
