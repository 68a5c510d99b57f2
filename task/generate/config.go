package generate

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/train"
)

// Config is everything that a language model is made from. Command-line flags,
// recipe files and Go programs fill this one struct; start from [Defaults]. A
// zero, an empty word or "auto" is replaced when training begins, where the help
// says so, by a value that depends on the text; [Model.Config] returns the value chosen.
type Config struct {
	Encoding string `json:"encoding" oneof:"(utf-8, but latin-1 for lines that are not valid),utf-8,latin-1" group:"Data" help:"encoding of the files"`
	Split    string `json:"split" group:"Data" help:"train,validation,test as fractions of the text (empty: 0.9,0.1,0, or all for training if there is a validation file)"`

	Tokens         string `json:"tokens" was:"unit word=space,tokens word=space" oneof:"char,bpe,space (text between white space, and ends of lines)" group:"Text" help:"kind of token"`
	VocabularySize int    `json:"vocabulary_size" range:"0..2e6" group:"Text" help:"largest size of the vocabulary (0: by the kind of token; for bpe 500 to 8,000 by the size of the text, otherwise no limit)"`
	MinCount       int    `json:"min_count" range:"0..1e9" group:"Text" help:"tokens with fewer occurrences in training are unknown (0: 1; for space 2 unless the text has <unk>)"`

	Embedding int    `json:"embedding" range:"0..8192" group:"Model" help:"size of a token's vector (0: hidden if output is tied, otherwise 64, or 256 for a vocabulary above 1,000)"`
	Output    string `json:"output" oneof:"auto (tied if the vocabulary is larger than hidden),tied (shared with the tokens' vectors),free" group:"Model" help:"weights of the output layer"`
	Softmax   string `json:"softmax" oneof:"auto (adaptive from a vocabulary of 8,000 on),full,adaptive (rare tokens in clusters)" group:"Model" help:"how probabilities are computed"`
	Cutoffs   []int  `json:"cutoffs" range:"1.." group:"Model" help:"adaptive softmax: ranks of the tokens at which the clusters begin (empty: three, chosen by their cost)"`
	task.RNNConfig
	Dropout          float64 `json:"dropout" range:"0..0.99" group:"Model" help:"dropout of the tokens' vectors, between layers and of the output, with one mask per sequence, unless input_dropout, rnn_dropout or output_dropout is set"`
	EmbeddingDropout float64 `json:"embedding_dropout" range:"0..0.99" group:"Model" help:"share of tokens of the vocabulary whose vectors are zeroed in a step"`

	AR    float64 `json:"ar" range:"0..1e3" group:"Training" help:"weight of the penalty on the size of the recurrent output"`
	TAR   float64 `json:"tar" range:"0..1e3" group:"Training" help:"weight of the penalty on changes of the recurrent output between steps"`
	Batch int     `json:"batch" range:"0..1e5" group:"Training" help:"number of streams of text per step, read in parallel (0: 4 to 64, by the size of the text)"`
	BPTT  int     `json:"bptt" was:"steps" range:"0..1e5" group:"Training" help:"time steps of truncated backpropagation; the state is carried to the next segment (0: 128, for space 64)"`
	train.Settings
}

// UnmarshalJSON decodes a configuration, also one of an older version. Its errors
// are those of settings.Decode: unknown names and values of the wrong type.
func (c *Config) UnmarshalJSON(raw []byte) error {
	type fields Config
	if c.Warmup == 0 {
		c.Warmup = 0.05 // older versions have no such setting
	}
	return settings.Decode(raw, (*fields)(c))
}

// Defaults returns the configuration to start from.
func Defaults() Config {
	c := Config{Tokens: "char", Output: "auto", Softmax: "auto", RNNConfig: task.DefaultRNN(), Dropout: 0.2, Settings: train.DefaultSettings()}
	c.Hidden = 384
	c.LR, c.MinLR, c.Warmup = 5e-3, 5e-5, 0.05
	return c
}

// Validate returns the first invalid setting as a *data.InputError of one line,
// or nil.
func (c *Config) Validate() error {
	if err := cmp.Or(settings.Check(c), c.RNNConfig.Validate(), c.Settings.Validate()); err != nil {
		return data.Setting(err)
	}
	if _, err := c.parts(); err != nil {
		return err
	}
	switch {
	case c.Bidirectional:
		return data.Errorf("bidirectional: not supported: a language model predicts the next token")
	case c.LearnState:
		return data.Errorf("learn_state: not supported: streams of text begin with a state of zeros")
	case c.Softmax == "full" && len(c.Cutoffs) > 0:
		return data.Errorf("cutoffs: a full softmax has no clusters; leave them out, or set softmax to adaptive")
	}
	for i, k := range c.Cutoffs {
		if i > 0 && k <= c.Cutoffs[i-1] {
			return data.Errorf("cutoffs: want ascending numbers, got %v", c.Cutoffs)
		}
	}
	return nil
}

// parts returns the fractions of Split; zeros if it is empty.
func (c *Config) parts() (p [3]float64, err error) {
	if c.Split == "" {
		return p, nil
	}
	words := strings.Split(c.Split, ",")
	sum := 0.0
	for i, w := range words {
		if i > 2 {
			break
		}
		if p[i], err = strconv.ParseFloat(strings.TrimSpace(w), 64); err != nil {
			break
		}
		sum += p[i]
	}
	if err != nil || len(words) != 3 || !(p[0] > 0 && p[1] >= 0 && p[2] >= 0 && math.Abs(sum-1) < 1e-9) {
		return p, data.Errorf("split: want three fractions that make 1, the first above 0, such as 0.8,0.1,0.1, got %q", c.Split)
	}
	return p, nil
}

// mostLogits is the largest number of logits of a step by default.
const mostLogits = 1 << 25

// defaultWork is the number of floating-point operations of a training by
// default: some minutes on two cores.
const defaultWork = 2e13

// settleText sets the values that depend on the text, before it is divided into
// tokens. marked reports whether the text has <unk>.
func (c *Config) settleText(characters int, marked bool) {
	if c.VocabularySize == 0 && c.Tokens == "bpe" {
		c.VocabularySize = min(max(characters/200/100*100, 500), 8000)
	}
	if c.MinCount == 0 {
		c.MinCount = 1
		if c.Tokens == "space" && !marked {
			c.MinCount = 2
		}
	}
}

// settle sets the values that depend on the number of tokens and on their counts,
// by id.
func (c *Config) settle(tokens int, counts []int64) {
	vocabulary := len(counts)
	if c.Output == "auto" {
		c.Output = "free"
		if vocabulary > c.Hidden {
			c.Output = "tied"
		}
	}
	if c.Embedding == 0 {
		switch {
		case c.Output == "tied":
			c.Embedding = c.outputSize()
		case vocabulary > 1000:
			c.Embedding = 256
		default:
			c.Embedding = 64
		}
	}
	if c.Softmax == "auto" {
		c.Softmax = "full"
		if vocabulary >= 8000 || len(c.Cutoffs) > 0 {
			c.Softmax = "adaptive"
		}
	}
	if c.Softmax == "adaptive" && len(c.Cutoffs) == 0 {
		c.Cutoffs = cutoffs(counts)
		if len(c.Cutoffs) == 0 {
			c.Softmax = "full"
		}
	}
	if c.BPTT == 0 {
		c.BPTT = 128
		if c.Tokens == "space" {
			c.BPTT = 64
		}
		for c.BPTT > 16 && tokens < 40*c.BPTT {
			c.BPTT /= 2
		}
	}
	if c.Batch == 0 {
		c.Batch = 4
		for c.Batch < 64 && tokens > 150*c.BPTT*c.Batch {
			c.Batch *= 2
		}
		for c.Softmax == "full" && c.Batch > 4 && c.Batch*c.BPTT*vocabulary > mostLogits {
			c.Batch /= 2
		}
	}
	epochs := defaultWork / (c.work(counts) * float64(max(tokens, 1)))
	c.FillDefaults(int(math.Min(math.Max(math.Round(epochs), 2), 20)))
}

// outputSize returns the size of the recurrent stack's output.
func (c *Config) outputSize() int {
	if c.Proj > 0 {
		return c.Proj
	}
	return c.Hidden
}

// work returns about the number of operations per token in training.
func (c *Config) work(counts []int64) float64 {
	h, in := float64(c.Hidden), float64(c.Embedding)
	weights := 4 * h * (h + in + 2*h*float64(c.Layers-1))
	out := float64(c.outputSize())
	if c.Softmax == "full" {
		return 6 * (weights + out*float64(len(counts)))
	}
	return 6 * (weights + out*clusterCost(shares(counts), c.Cutoffs))
}

// describe describes the network in a few words.
func (c *Config) describe() string {
	units := map[string]string{"char": "characters", "bpe": "byte pairs", "space": "words"}
	return fmt.Sprintf("%d x %d %s, %s softmax over %s", c.Layers, c.Hidden, strings.ToUpper(c.Cell), c.Softmax, units[c.Tokens])
}
