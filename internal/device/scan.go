package device

import "github.com/carousel-ml/carousel/cell"

// Function is an elementwise function: an activation, or one of these.
type Function = cell.Activation

// The functions that have no place inside a cell.
const (
	Exp = cell.NumActivations + iota
	Log
	Square
	Scale // alpha*x
	Shift // x+alpha
	NumFunctions
)

// CellOptions are a cell's options as the pass has them. WeightDrop is done by then,
// and HDrop is 0 in passes that draw none.
type CellOptions struct {
	cell.Options
	Expect     bool   // zoneout takes the expectation in place of a draw
	Seed, Step uint64 // the key of the masks, as in DropoutSpec; with the row and the time
	Node       uint64 // they depend on nothing else. Node+1 and Node+2 are used as well
}

// ScanParams are what a scan reads beside its input, or the gradients of that, by kind.
type ScanParams [cell.NumOperands]Buffer

// ScanSpec is one layer in one direction over a whole sequence, time-major.
//
// Rows are sorted by length, longest first: at time t the first Active[t] rows are inside their
// sequence (absent: all B at every t). Reverse runs t = T-1 .. 0, so a row begins at its true last step.
// Rows outside their sequence keep their state, get zero output and pass no gradient.
//
// O, the width of h, is H unless there is a projection; C, the width of the other states, is (States-1)*H.
type ScanSpec struct {
	Cell       cell.Kind
	T, B, I, H int
	Proj       int // above 0: O is Proj, by the matrix P
	Reverse    bool
	Active     Ints // [T], not increasing
	Rows       Ints // [B] the caller's number of each row, for masks; absent: its place
	Keep       bool // save what ScanGrad needs
	CellOptions

	X      Buffer     // [T,B,I]
	Params ScanParams // W is there always; the states where they are not zeros, the others where cell and options have them
	Y      Buffer     // [T,B,YLd]: this direction writes columns [YOff, YOff+O)
	YLd    int
	YOff   int
	HN, CN Buffer // [B,O], [B,C] state after each row's last step

	// What the backend works in, ScanWork elements that nobody else looks into.
	// With Keep it is what Scan leaves for ScanGrad.
	Work Buffer

	// W, R and P rest at this version: what Scan and what ScanGrad derive from them may be kept. nil: it may not.
	Cache, BackCache *Cache
	Version          uint64

	// ScanGrad only. A gradient buffer that is absent is not computed. All accumulate, but DX as DXAcc says.
	DY       Buffer // [T,B,YLd] at YOff; absent is zeros
	DHN, DCN Buffer // absent is zeros
	DX       Buffer // [T,B,I]
	DXAcc    bool
	Grads    ScanParams

	// To look into a network, each absent unless wanted. Scan writes TraceGates [T,B,G*H], what the gates hold after
	// each step: activations (of an sLSTM's i and f, and of a custom cell, whatever its Forward left); and TraceCells
	// [T,B,C], the states beside h after each step. ScanGrad writes the gradients of the states after each step,
	// TraceDH [T,B,O] and TraceDC [T,B,C]. That of h counts whatever reads it; that of C what later steps read of it,
	// its own step's h not. All but TraceCells are written where a row is inside its sequence only.
	TraceGates, TraceCells Buffer
	TraceDH, TraceDC       Buffer

	// To follow gradients that float32 would not hold, [T,B]: what later steps hand back to the states after step
	// t of row b is multiplied by TraceGain[t,b], before anything else is added. Powers of two round nothing.
	// Absent is ones. Whatever else ScanGrad computes is then that of the grown gradients.
	TraceGain Buffer
}

// StackScanner is a Backend that may take a whole stack of layers at once, where
// it is faster so than layer by layer. It is asked before the layers are run one
// after the other.
type StackScanner interface {
	Backend
	StackWork(s *StackSpec) (n int, ok bool) // the length of s.Work, as ScanWork; not ok: the stack is not for it
	ScanStack(s *StackSpec)                  // forward
	ScanStackGrad(s *StackSpec)              // backward, after ScanStack with Keep
}

// StackSpec is layers of one cell that feed each other with nothing between them:
// each but the first reads what the directions of the one before it put side by side.
//
// A ScanSpec means here what it does in Scan and ScanGrad, but that X and DX are
// there in the first layer only, Y and DY in the last: what lies between layers is
// the backend's own, as is the scans' Work. Keep is the same for all. Where two
// directions share X, the last one has the DXAcc that counts.
type StackSpec struct {
	Scans []*ScanSpec // by layer, then direction
	Dirs  int         // directions of a layer
	Work  Buffer
}

// Out is O, the width of h.
func (s *ScanSpec) Out() int {
	if s.Proj > 0 {
		return s.Proj
	}
	return s.H
}

// Has says whether a parameter is there.
func (s *ScanSpec) Has(p cell.Param) bool { return !s.Params[p].Zero() }

// Dims are a parameter's dimensions, as many as its rank.
func (s *ScanSpec) Dims(p cell.Param) [2]int {
	return cell.Params[p].Dims(&cell.Sizes{cell.Batch: s.B, cell.Inputs: s.I, cell.Units: s.H, cell.Out: s.Out(), cell.Gates: s.GateWidth(), cell.Beside: s.CellWidth()})
}

// CellWidth is C, the width of the states beside h.
func (s *ScanSpec) CellWidth() int {
	_, states := s.Cell.Shape(s.Custom)
	return (states - 1) * s.H
}

// GateWidth is G*H.
func (s *ScanSpec) GateWidth() int {
	gates, _ := s.Cell.Shape(s.Custom)
	return gates * s.H
}
