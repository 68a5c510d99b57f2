package keywords

import (
	"cmp"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/tensor"
)

// Config is everything that a classifier is made from. Command-line flags, recipe
// files and Go programs fill this one struct; start from [Defaults]. [Model.Config]
// has what the data settled.
type Config struct {
	speech.Setup
	Label string `json:"label" group:"Data" help:"column of the label"`
	Pool  string `json:"pool" oneof:"max,mean,last" group:"Model" help:"how the steps of a sound become one vector"`
}

// UnmarshalJSON reads a configuration, that of an older model too.
func (c *Config) UnmarshalJSON(raw []byte) error {
	type fields Config
	return settings.Decode(raw, (*fields)(c))
}

// Defaults is the configuration that a user starts from: two layers of
// 96 LSTM units in both directions on log-mel bands. Sounds to be told apart are
// short: their own statistics would be noise, so those of the training part
// serve, and loudness and noise are varied instead.
func Defaults() Config {
	s := speech.DefaultSetup()
	s.Layers, s.Hidden, s.Bidirectional, s.RNNDropout = 2, 96, true, 0.2
	s.Stack, s.Batch, s.LR = 2, 32, 2e-3
	s.Normalize, s.Gain, s.Noise = "global", 6, 15
	return Config{Setup: s, Label: "label", Pool: "max"}
}

var pools = map[string]func(*tensor.Tensor) *tensor.Tensor{"max": tensor.MaxPool, "mean": tensor.MeanPool, "last": tensor.LastStep}

// Validate reports the first thing wrong with a configuration, in one line; it
// is a *data.InputError.
func (c *Config) Validate() error {
	return cmp.Or(data.Setting(settings.Check(c)), c.Setup.Validate())
}
