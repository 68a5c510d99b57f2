package keywords

import (
	"cmp"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/tensor"
)

// Config is the settings of a classifier of sounds. Command-line flags, recipe
// files and Go programs fill this one struct; start from [Defaults].
// [Model.Config] returns the values chosen where they depend on the data.
type Config struct {
	speech.Setup
	Label string `json:"label" group:"Data" help:"column of the labels"`
	Pool  string `json:"pool" oneof:"max,mean,last" group:"Model" help:"how the outputs of the recurrent layers over time become one vector"`
}

// UnmarshalJSON decodes a configuration, also one of an older version. Its errors
// are those of settings.Decode: unknown names and values of the wrong type.
func (c *Config) UnmarshalJSON(raw []byte) error {
	type fields Config
	return settings.Decode(raw, (*fields)(c))
}

// Defaults returns the configuration to start from: two bidirectional layers of
// 96 LSTM units on log-mel bands. The sounds are short, so their own statistics
// would be noisy: they are normalised with those of the training part, and
// loudness and noise are varied.
func Defaults() Config {
	s := speech.DefaultSetup()
	s.Layers, s.Hidden, s.Bidirectional, s.RNNDropout = 2, 96, true, 0.2
	s.Stack, s.Batch, s.LR = 2, 32, 2e-3
	s.Normalize, s.Gain, s.Noise = "global", 6, 15
	return Config{Setup: s, Label: "label", Pool: "max"}
}

var pools = map[string]func(*tensor.Tensor) *tensor.Tensor{"max": tensor.MaxPool, "mean": tensor.MeanPool, "last": tensor.LastStep}

// Validate returns the first invalid setting as a *data.InputError of one line,
// or nil.
func (c *Config) Validate() error {
	return cmp.Or(data.Setting(settings.Check(c)), c.Setup.Validate())
}
