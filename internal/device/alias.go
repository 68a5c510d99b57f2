package device

import "github.com/carousel-ml/carousel/cell"

// Activation and the constants are names of package cell that the CPU's
// activation.go still uses.
type Activation = cell.Activation

const (
	OwnAct      = cell.Own
	SigmoidAct  = cell.Sigmoid
	TanhAct     = cell.Tanh
	ReLUAct     = cell.ReLU
	HardSigmoid = cell.HardSigmoid
	HardTanh    = cell.HardTanh
	Softsign    = cell.Softsign
	Identity    = cell.Identity
	LeakyReLU   = cell.LeakyReLU
	ELU         = cell.ELU
	SoftplusAct = cell.Softplus
	RNNReLU     = cell.RNNReLU
)
