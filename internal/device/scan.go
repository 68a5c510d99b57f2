package device

import "github.com/carousel-ml/carousel/cell"

// Function is an elementwise function: an activation, or one of these.
type Function = cell.Activation

// The functions that are not activations of cells.
const (
	Exp = cell.NumActivations + iota
	Log
	Square
	RSqrt // 1/√(x+alpha)
	Scale // alpha*x
	Shift // x+alpha
	NumFunctions
)

// CellOptions is a cell's options in a pass. WeightDrop has been applied to the
// weights, and HDrop is 0 in passes that draw no mask.
type CellOptions struct {
	cell.Options
	Expect     bool   // zoneout uses the expectation instead of random numbers
	Seed, Step uint64 // key of the masks, as in DropoutSpec. They depend on it, the row and the time alone
	Node       uint64 // likewise. Node+1 and Node+2 are used as well
}

// ScanParams holds what a scan reads beside its input, or its gradients, by cell.Param.
type ScanParams [cell.NumOperands]Buffer

// ScanSpec is one layer in one direction over a whole sequence, time-major.
//
// Rows are sorted by length, longest first: at time t the first Active[t] rows are inside their
// sequence (absent: all B at every t). Reverse runs t = T-1 .. 0, so a row begins at its true last step.
// Outside its sequence a row's state does not change, its output is zero and it passes no gradient.
//
// O, the width of h, is H unless there is a projection; C, the width of the other states, is (States-1)*H.
type ScanSpec struct {
	Cell       cell.Kind
	T, B, I, H int
	Proj       int // above 0: O is Proj, by the matrix P
	Reverse    bool
	Active     Ints                 // [T], not increasing
	Lengths    []int32              // [B] the rows' lengths, for a backend whose library wants them on the host; nil: it does not know
	Rows       Ints                 // [B] the caller's number of each row, for masks; absent: its index
	Keep       bool                 // ScanGrad follows; if the kind of W has 16 bits, gates are kept in 16 bits for it
	BatchMajor bool                 // X, Y, DX and DY are [B,T,·]; Active is absent
	Kinds      [cell.NumParams]Kind // that the operands of the products with W, R and P are rounded to. INT8 is ScanGrad's F32
	CellOptions

	X      Buffer     // [T,B,I]
	Params ScanParams // W is always present; states if they are not zeros, the others if cell and options have them
	Y      Buffer     // [T,B,YLd]: this direction writes columns [YOff, YOff+O)
	YLd    int
	YOff   int
	HN, CN Buffer // [B,O], [B,C] state after each row's last step

	// Work is private to the backend: ScanWork elements. With Keep, Scan writes there
	// what ScanGrad reads.
	Work Buffer

	// For what Scan and ScanGrad derive from W, R and P for these kinds and version; nil: not cached.
	Cache, BackCache *Cache
	Version          uint64

	// ScanGrad only. A gradient that is absent is not computed. All accumulate, DX only with DXAcc.
	DY       Buffer // [T,B,YLd] at YOff; absent is zeros
	DHN, DCN Buffer // absent is zeros
	DX       Buffer // [T,B,I]
	DXAcc    bool
	Grads    ScanParams

	// Intermediate values, each absent unless requested; if ScanGrad is to trace, Scan is asked for some of them too. Scan writes TraceGates [T,B,G*H], the gates after each step:
	// activations (for an sLSTM's i and f pre-activations, for a custom cell what its Forward left); and TraceCells
	// [T,B,C], the states beside h after each step. ScanGrad writes the gradients of the states after each step,
	// TraceDH [T,B,O] and TraceDC [T,B,C]. That of h includes all its uses; that of C the uses in later steps, but
	// not in h of the same step. All but TraceCells are written inside sequences only.
	TraceGates, TraceCells Buffer
	TraceDH, TraceDC       Buffer

	// TraceGain [T,B], absent: ones, scales gradients that would underflow in float32: the gradients of the states
	// after step t of row b that come from later steps are multiplied by TraceGain[t,b] before the others are added.
	// Powers of two cause no rounding. All other results of ScanGrad then belong to the scaled gradients.
	TraceGain Buffer
}

// StackScanner is a Backend that can run a whole stack of layers at once, for stacks
// for which this is faster. It is tried before the layers are run one by one.
type StackScanner interface {
	Backend
	StackWork(s *StackSpec) (n int, ok bool) // the length of s.Work, as ScanWork; not ok: the stack is not for it
	ScanStack(s *StackSpec)                  // forward
	ScanStackGrad(s *StackSpec)              // backward, after ScanStack with Keep
}

// StackSpec is layers of one cell with nothing between them: each but the first
// reads the outputs of the directions of the previous one, side by side.
//
// Each ScanSpec means the same as in Scan and ScanGrad, except that X and DX are
// present in the first layer only, Y and DY in the last, and Work in none: memory
// between layers is part of the stack's Work. Keep is the same for all. If two
// directions share X, the DXAcc of the last one is used.
type StackSpec struct {
	Scans []*ScanSpec // by layer, then direction
	Dirs  int         // directions of a layer
	Work  Buffer
}

// Out returns O, the width of h.
func (s *ScanSpec) Out() int {
	if s.Proj > 0 {
		return s.Proj
	}
	return s.H
}

// Has reports whether a parameter is present.
func (s *ScanSpec) Has(p cell.Param) bool { return !s.Params[p].Zero() }

// Dims returns a parameter's dimensions. Only the first Rank of them are used.
func (s *ScanSpec) Dims(p cell.Param) [2]int {
	return cell.Params[p].Dims(&cell.Sizes{cell.Batch: s.B, cell.Inputs: s.I, cell.Units: s.H, cell.Out: s.Out(), cell.Gates: s.GateWidth(), cell.Beside: s.CellWidth()})
}

// CellWidth returns C, the width of the states beside h.
func (s *ScanSpec) CellWidth() int {
	_, states := s.Cell.Shape(s.Custom)
	return (states - 1) * s.H
}

// GateWidth returns G*H.
func (s *ScanSpec) GateWidth() int {
	gates, _ := s.Cell.Shape(s.Custom)
	return gates * s.H
}

// SideWidth returns the width of ScanWork.Side: all gates if they are normalised, one if the
// cell keeps R·h of one separate.
func (s *ScanSpec) SideWidth() int {
	switch {
	case s.Has(cell.NormX):
		return s.GateWidth()
	case s.Cell.Spec().Side:
		return s.H
	}
	return 0
}

// Joined returns the number of first rows of R whose product with h is added to W·x in
// ScanWork.Gates; that of the others is in Side.
func (s *ScanSpec) Joined() int { return s.GateWidth() - s.SideWidth() }

// Tied returns the number of first elements of BW and BR that are added to each other.
func (s *ScanSpec) Tied() int {
	if spec := s.Cell.Spec(); spec.Side && spec.By != cell.WithResetBefore {
		return s.GateWidth() - s.H
	}
	return s.GateWidth()
}

// Collected returns the number of elements, the last ones, of a parameter's gradient that
// arise row by row: all of a vector inside the cell, and if R·h is normalised the part of BR
// whose gate keeps R·h separate.
func (s *ScanSpec) Collected(p cell.Param) int {
	switch {
	case !s.Has(p) || cell.Params[p].Rank() > 1:
		return 0
	case cell.Params[p].With != 0:
		return s.Dims(p)[0]
	case p == cell.BR && s.Has(cell.NormX):
		return s.GateWidth() - s.Tied()
	}
	return 0
}

// ScanWork is the parts of ScanSpec.Work for backends that run one step after the other.
type ScanWork struct {
	Gates Buffer // [steps,B,G*H] W·x, then gates, then (ScanGrad) their gradients
	Side  Buffer // [steps,B,SideWidth]
	Hs    Buffer // Keep: [T+1,B,O], so that slot t (reversed: t+1) is the state before time t. Else [2,B,O]
	Cs    Buffer // as Hs, [..,B,C]
	HIn   Buffer // with HDrop: as Hs, what enters R
	Mid   Buffer // with Proj: [steps,B,H], what enters P
	XHat  Buffer // with NormX: [steps,B,G*H], W·x normalised
	Stats Buffer // with NormX: [steps,B,4], the norms' 1/deviation
}

// KeptSteps returns the number of steps that parts of ScanWork have room for: all for ScanGrad,
// otherwise those whose gates are at most so many numbers.
func (s *ScanSpec) KeptSteps(gates int) int {
	if s.Keep {
		return s.T
	}
	return max(1, min(s.T, gates/max(1, s.B*s.GateWidth())))
}

// Divide returns the parts of Work with room for some steps, with halves two gates to a number,
// and their length together. Each begins on a cache line. Without Work the length alone is meant.
func (s *ScanSpec) Divide(steps int, halves bool) (w ScanWork, n int) {
	rows, slots, gates := steps*s.B, 2*s.B, s.GateWidth()
	if s.Keep {
		slots = (s.T + 1) * s.B
	}
	part := func(to *Buffer, wanted bool, size int) {
		if !wanted || size == 0 {
			return
		}
		if !s.Work.Zero() {
			*to = s.Work.Slice(n, n+size)
		}
		n += (size + 15) &^ 15
	}
	kept := rows * gates
	if halves {
		kept = (kept + 1) / 2
	}
	part(&w.Gates, true, kept)
	part(&w.Side, true, rows*s.SideWidth())
	part(&w.Hs, true, slots*s.Out())
	part(&w.Cs, true, slots*s.CellWidth())
	part(&w.HIn, s.HDrop > 0, slots*s.Out())
	part(&w.Mid, s.Proj > 0, rows*s.H)
	part(&w.XHat, s.Has(cell.NormX), rows*gates)
	part(&w.Stats, s.Has(cell.NormX), rows*4)
	return w, n
}
