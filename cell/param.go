package cell

// Param names what one direction of a layer reads beside its input: its
// parameters, and the states that it begins with.
type Param uint8

// The parameters, in the order in which a layer holds them.
const (
	W     Param = iota
	R           // sees h
	BW          // bias of W·x
	BR          // bias of R·h
	P           // projects the output; without it O is H
	PeepI       // diagonal peepholes: i and f see c before the step, o after it
	PeepF
	PeepO
	NormX // gains of the layer norms of W·x and R·h, which BW and BR follow
	NormR
	NormC // gain and bias of that of c before its activation
	BiasC
	NumParams

	H0          = NumParams     // a state, and a parameter if it is learned
	C0          = NumParams + 1 // likewise
	NumOperands = NumParams + 2
)

// Size is a dimension that depends on a layer.
type Size uint8

// The sizes, as indices of [Sizes].
const (
	None   Size = iota // no dimension
	Batch              // B; of learned states the layers times directions
	Inputs             // I
	Units              // H
	Out                // O, the width of h
	Gates              // G*H
	Beside             // C, the width of the states beside h
	numSizes
)

// Sizes are those of a layer.
type Sizes [numSizes]int

// Need is a set of conditions for a parameter to be there.
type Need uint8

// The conditions.
const (
	NeedsBias   Need = 1 << iota // the layer has biases
	NeedsR                       // the gates see h
	NeedsC                       // there are states beside h
	NeedsForget                  // there is a gate f
)

// Init is what a parameter begins with.
type Init uint8

// The beginnings.
const (
	Zeros Init = iota
	Ones
	Uniform // PyTorch's ±1/√H, or another for matrices if asked for
	Bias    // that too, or what opens gates
)

// ParamSpec is a row of the table of parameters.
type ParamSpec struct {
	Name       string // PyTorch's, where it has it; a suffix follows for layer and direction
	Rows, Cols Size   // a vector has Rows only
	Init       Init
	Decays     bool // with weight decay
	With       With // the option that it belongs to; 0: none
	Needs      Need
}

// Params is the table, indexed by Param.
var Params = [NumOperands]ParamSpec{
	W:     {Name: "weight_ih", Rows: Gates, Cols: Inputs, Init: Uniform, Decays: true},
	R:     {Name: "weight_hh", Rows: Gates, Cols: Out, Init: Uniform, Decays: true, Needs: NeedsR},
	BW:    {Name: "bias_ih", Rows: Gates, Init: Bias, Needs: NeedsBias},
	BR:    {Name: "bias_hh", Rows: Gates, Init: Bias, Needs: NeedsBias | NeedsR},
	P:     {Name: "weight_hr", Rows: Out, Cols: Units, Init: Uniform, Decays: true, With: WithProj},
	PeepI: {Name: "weight_pi", Rows: Units, Init: Uniform, With: WithPeephole},
	PeepF: {Name: "weight_pf", Rows: Units, Init: Uniform, With: WithPeephole, Needs: NeedsForget},
	PeepO: {Name: "weight_po", Rows: Units, Init: Uniform, With: WithPeephole},
	NormX: {Name: "weight_ln_ih", Rows: Gates, Init: Ones, With: WithLayerNorm},
	NormR: {Name: "weight_ln_hh", Rows: Gates, Init: Ones, With: WithLayerNorm},
	NormC: {Name: "weight_ln_c", Rows: Units, Init: Ones, With: WithLayerNorm, Needs: NeedsC},
	BiasC: {Name: "bias_ln_c", Rows: Units, With: WithLayerNorm, Needs: NeedsC | NeedsBias},
	H0:    {Name: "h_0", Rows: Batch, Cols: Out},
	C0:    {Name: "c_0", Rows: Batch, Cols: Beside, Needs: NeedsC},
}

// Rank is 1 of a vector, 2 of a matrix.
func (p *ParamSpec) Rank() int {
	if p.Cols == None {
		return 1
	}
	return 2
}

// Dims are the parameter's dimensions in a layer of these sizes, as many as its rank.
func (p *ParamSpec) Dims(s *Sizes) [2]int { return [2]int{s[p.Rows], s[p.Cols]} }
