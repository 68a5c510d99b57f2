package cell

// Param is an operand of one direction of a layer other than its input: a parameter
// or an initial state. It is an index of [Params].
type Param uint8

// The parameters, in the order in which a layer holds them.
const (
	W     Param = iota // times x
	R                  // times h
	BW                 // bias of W·x
	BR                 // bias of R·h
	P                  // projection of the output; without it O is H
	PeepI              // diagonal peepholes: of c before the step to i and f, of c after it to o
	PeepF
	PeepO
	NormX // gains of the layer norms of W·x and R·h, whose biases are BW and BR
	NormR
	NormC // gain and bias of the layer norm of c before its activation
	BiasC
	NumParams

	H0          = NumParams     // the initial h, a parameter if it is learned
	C0          = NumParams + 1 // the initial c, likewise
	NumOperands = NumParams + 2
)

// Size is a dimension of a parameter, an index of [Sizes].
type Size uint8

// The sizes.
const (
	None   Size = iota // no dimension
	Batch              // B; for learned states layers times directions
	Inputs             // I
	Units              // H
	Out                // O, the width of h
	Gates              // G*H
	Beside             // C, the width of the states beside h
	numSizes
)

// Sizes holds the sizes of a layer.
type Sizes [numSizes]int

// Need is a set of conditions for a layer to have a parameter.
type Need uint8

// The conditions.
const (
	NeedsBias   Need = 1 << iota // the layer has biases
	NeedsR                       // the gates depend on h
	NeedsC                       // the cell has states beside h
	NeedsForget                  // the cell has a gate f
)

// Init selects the initial values of a parameter.
type Init uint8

// The initial values.
const (
	Zeros Init = iota
	Ones
	Uniform // U(-1/√H, 1/√H), or what an option sets for matrices
	Bias    // the same, or what an option sets for the biases of gates
)

// ParamSpec is a row of the table of parameters.
type ParamSpec struct {
	Name       string // PyTorch's, if it has the parameter, without the suffix of layer and direction
	Rows, Cols Size   // a vector has Rows only
	Init       Init
	Decays     bool // weight decay applies
	With       With // the option that adds it; 0: none
	Needs      Need
}

// Params is the table of parameters, indexed by Param.
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

// Rank returns 1 for a vector, 2 for a matrix.
func (p *ParamSpec) Rank() int {
	if p.Cols == None {
		return 1
	}
	return 2
}

// Dims returns the parameter's dimensions in a layer of sizes s; the first Rank are
// valid.
func (p *ParamSpec) Dims(s *Sizes) [2]int { return [2]int{s[p.Rows], s[p.Cols]} }
