package cell

import "slices"

// Activation is a function of one number inside a cell. Its derivative must
// follow from its value, so that pre-activations need not be kept.
type Activation uint8

// The activations a cell may use.
const (
	Own     Activation = iota // the cell's own: a logistic gate, a tanh elsewhere
	Sigmoid                   // 1/(1+e⁻ˣ)
	Tanh
	ReLU        // max(x, 0)
	HardSigmoid // min(max(0.2x + 0.5, 0), 1), ONNX's and old Keras's
	HardTanh    // min(max(x, -1), 1)
	Softsign    // x/(1+|x|)
	Identity    // x
	LeakyReLU   // x, or 0.01x below 0
	ELU         // x, or eˣ-1 below 0
	Softplus    // log(1+eˣ)
	NumActivations
)

// Activations names them, as settings and ONNX do; the first is "".
var Activations = [NumActivations]string{"", "sigmoid", "tanh", "relu", "hard_sigmoid", "hard_tanh", "softsign", "identity", "leaky_relu", "elu", "softplus"}

// ActivationNamed finds an activation by its name, such as "hard_sigmoid"; "" is
// the cell's own.
func ActivationNamed(name string) (Activation, bool) {
	i := slices.Index(Activations[:], name)
	return Activation(max(i, 0)), i >= 0
}
