package transcribe

import (
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/speech"
)

// Config is the settings of a speech recogniser. Command-line flags, recipe files
// and Go programs fill this one struct; start from [Defaults]. [Model.Config]
// returns the values chosen where they depend on the data.
type Config struct {
	speech.Setup
	Text           string `json:"text" group:"Data" help:"column of the texts"`
	Tokens         string `json:"tokens" was:"units characters=char symbols=space" oneof:"char,bpe (pieces of words),space (text between white space)" group:"Data" help:"kind of token"`
	VocabularySize int    `json:"vocabulary_size" was:"vocabulary" range:"300..2e6" group:"Data" help:"largest size of the vocabulary of tokens bpe, with 256 bytes and 4 special tokens"`
	Alphabet       string `json:"alphabet" value:"file" group:"Data" help:"file of the tokens, one per line (empty: those of the training texts)"`
	Case           string `json:"case" oneof:"keep,lower,upper" group:"Data" help:"conversion of the texts' letters"`

	LM       string `json:"lm" value:"file" group:"Decoding" help:"n-gram language model in ARPA format, saved with the model; its weight is tuned on the validation utterances"`
	LMTokens bool   `json:"lm_tokens" was:"lm_units" group:"Decoding" help:"the language model is of tokens (characters, <space>), not of words"`
	Lexicon  string `json:"lexicon" value:"file" group:"Decoding" help:"file of the allowed words, the first field of each line, saved with the model"`
	Beam     int    `json:"beam" range:"0..10000" group:"Decoding" help:"hypotheses kept by the beam search (1: greedy; 0: 1, or 64 if another option needs a search)"`
}

// UnmarshalJSON decodes a configuration, also one of an older version. Its errors
// are those of settings.Decode: unknown names and values of the wrong type.
func (c *Config) UnmarshalJSON(raw []byte) error {
	type fields Config
	return settings.Decode(raw, (*fields)(c))
}

// Defaults returns the configuration to start from: three bidirectional layers of
// 256 LSTM units on log-mel bands.
func Defaults() Config {
	s := speech.DefaultSetup()
	s.Layers, s.Hidden, s.Bidirectional, s.RNNDropout = 3, 256, true, 0.3
	return Config{Setup: s, Text: "text", Tokens: "char", VocabularySize: 500, Case: "keep"}
}

// Validate returns the first invalid setting as a *data.InputError of one line,
// or nil.
func (c *Config) Validate() error {
	if err := settings.Check(c); err != nil {
		return data.Setting(err)
	}
	if c.LMTokens && c.LM == "" {
		return data.Errorf("lm_tokens: needs a language model; name its file with lm")
	}
	if c.Lexicon != "" && c.Tokens == "space" {
		return data.Errorf("lexicon: its words are spelled in characters; not supported with tokens space")
	}
	if c.Alphabet != "" && c.Tokens == "bpe" {
		return data.Errorf("alphabet: tokens bpe are learned from the training texts; leave it out")
	}
	return c.Setup.Validate()
}

// clean returns a text in the form that the network is trained on: with single
// spaces, and letters converted by Config.Case.
func (c *Config) clean(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	switch c.Case {
	case "lower":
		return strings.ToLower(text)
	case "upper":
		return strings.ToUpper(text)
	}
	return text
}
