package cell

import "slices"

// Activation is an elementwise function inside a cell. Its derivative is a function of
// its value, so pre-activations are not kept.
type Activation uint8

// The activations a cell may use.
const (
	Own     Activation = iota // the cell's default: sigmoid for gates, tanh elsewhere
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

// Activations holds the names of the activations, as in settings and ONNX, indexed by
// Activation; that of Own is "".
var Activations = [NumActivations]string{"", "sigmoid", "tanh", "relu", "hard_sigmoid", "hard_tanh", "softsign", "identity", "leaky_relu", "elu", "softplus"}

// ActivationNamed returns the activation of a name, such as "hard_sigmoid", and
// reports whether there is one; "" is [Own].
func ActivationNamed(name string) (Activation, bool) {
	i := slices.Index(Activations[:], name)
	return Activation(max(i, 0)), i >= 0
}
