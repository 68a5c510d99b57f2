// Package speech trains recurrent networks to recognise speech: from sound
// files to words by log-mel features, an LSTM and connectionist temporal
// classification (Graves et al. 2006).
//
// A [Config] says how; [Train] makes a [Model] of the utterances that
// [ReadManifest] lists; a Model transcribes ([Model.Transcribe]), listens to a
// stream ([Model.NewStream]), is scored ([Model.Evaluate]) and lives in a
// directory ([Model.Save], [Open]). A [Lexicon] and an n-gram [LM] may help it
// choose among words.
package speech

import (
	"cmp"
	"math"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/train"
)

// Config is everything that a recogniser is made from. Command-line flags,
// recipe files and Go programs fill this one struct; start from [Defaults].
// [Model.Config] tells what the data settled.
type Config struct {
	Setup
	Text           string `json:"text" group:"Data" help:"column of what is said"`
	Tokens         string `json:"tokens" was:"units" oneof:"char,bpe (pieces of words),space (words or phones, with spaces between them)" group:"Data" help:"what a token is, of which the network spells texts"`
	VocabularySize int    `json:"vocabulary_size" was:"vocabulary" range:"300..100000" group:"Data" help:"most pieces of words to know, 256 bytes and 4 special ones included"`
	Alphabet       string `json:"alphabet" value:"file" group:"Data" help:"file of the tokens, one a line (empty: those of the training texts)"`
	Case           string `json:"case" oneof:"keep,lower,upper" group:"Data" help:"letters of the texts"`

	LM       string `json:"lm" value:"file" group:"Decoding" help:"n-gram language model in ARPA format, kept with the model; its weight is tuned on the validation utterances"`
	LMTokens bool   `json:"lm_tokens" was:"lm_units" group:"Decoding" help:"the language model is of tokens (characters, <space>), not of words"`
	Lexicon  string `json:"lexicon" value:"file" group:"Decoding" help:"file of the words that texts may consist of, the first of each line, kept with the model"`
	Beam     int    `json:"beam" range:"0..10000" group:"Decoding" help:"beginnings of texts that the search keeps (0: greedy, or 64 with a language model or lexicon)"`
}

// UnmarshalJSON reads a configuration, that of an older model too.
func (c *Config) UnmarshalJSON(raw []byte) error {
	type fields Config
	if err := settings.Decode(raw, (*fields)(c)); err != nil {
		return err
	}
	c.Tokens = tokensToday(c.Tokens)
	return nil
}

// tokensToday is a choice of Config.Tokens by the name that it has today.
func tokensToday(tokens string) string {
	switch tokens {
	case "characters":
		return "char"
	case "symbols":
		return "space"
	}
	return tokens
}

// Setup is the settings that all models that listen have in common. A zero
// where the help says so is settled by the data when training begins.
type Setup struct {
	Audio       string  `json:"audio" group:"Data" help:"column of the sound files (WAV or FLAC), or of their features (.npy or Sphinx .mfc); paths count from the manifest"`
	SplitColumn string  `json:"split_column" was:"part" group:"Data" help:"column that says train, validation or test (empty: all rows but the held-out share are for training)"`
	Speaker     string  `json:"speaker" group:"Data" help:"column of the speaker: training and validation then have none in common"`
	Holdout     float64 `json:"holdout" was:"validation" range:"0..0.9" group:"Data" help:"share of the utterances, or of the speakers, to validate on where split_column says nothing"`

	Features     string  `json:"features" oneof:"logmel,mfcc" group:"Features" help:"what the network hears of a frame"`
	Rate         int     `json:"rate" range:"0..1e6" group:"Features" help:"sample rate that sounds are brought to, in Hz (0: that of the first file, 16000 at most)"`
	Frame        float64 `json:"frame" was:"window" range:"1..1000" group:"Features" help:"length of a frame in ms"`
	Hop          float64 `json:"hop" range:"1..1000" group:"Features" help:"ms from one frame to the next"`
	Bands        int     `json:"bands" range:"1..1024" group:"Features" help:"mel bands"`
	Coefficients int     `json:"coefficients" range:"1..1024" group:"Features" help:"coefficients of mfcc, and numbers a frame of .mfc files"`
	Preemphasis  float64 `json:"preemphasis" range:"[0..1)" group:"Features" help:"high-pass x[n]-p·x[n-1] before all else, such as 0.97 (0: none)"`
	Deltas       int     `json:"deltas" range:"0..2" group:"Features" help:"slopes beside the features (1: their slope; 2: and its slope)"`
	Normalize    string  `json:"normalize" oneof:"(utterance, or running where the network reads forward only),utterance,running (what was heard so far),global (over the training part),none" group:"Features" help:"to mean 0 and deviation 1, by which statistics"`
	Stack        int     `json:"stack" range:"1..32" group:"Features" help:"frames that make one step of the network"`
	StackStride  int     `json:"stack_stride" was:"skip" range:"0..32" group:"Features" help:"frames from one step to the next (0: as many as are stacked)"`

	nn.RNNConfig
	Dropout float64 `json:"dropout" range:"0..0.99" group:"Model" help:"dropout after the recurrent layers"`

	Speed     float64 `json:"speed" range:"0..0.5" group:"Augmentation" help:"play training sounds slower or faster by up to this share; of files of features the tempo alone changes"`
	Gain      float64 `json:"gain" range:"0..60" group:"Augmentation" help:"change their loudness by up to so many dB"`
	Noise     float64 `json:"noise" range:"0..100" group:"Augmentation" help:"add white noise to half of them, at this signal-to-noise ratio in dB or better (0: none)"`
	TimeMasks int     `json:"time_masks" range:"0..100" group:"Augmentation" help:"stretches of time to mask (SpecAugment)"`
	TimeMask  float64 `json:"time_mask" range:"0..1" group:"Augmentation" help:"longest mask in time, as a share of the utterance"`
	BandMasks int     `json:"band_masks" range:"0..100" group:"Augmentation" help:"stretches of bands to mask (SpecAugment)"`
	BandMask  float64 `json:"band_mask" range:"0..1" group:"Augmentation" help:"widest mask of bands, as a share of them"`

	Batch       int     `json:"batch" range:"1..1e5" group:"Training" help:"utterances a step, at most"`
	BatchTime   float64 `json:"batch_time" range:"1..1e6" group:"Training" help:"seconds of sound a step, padding included, at most"`
	WarmupShare float64 `json:"warmup_share" was:"warmup" range:"0..1" group:"Training" help:"share of the steps in which the learning rate rises"`
	train.Settings
}

// Defaults is the configuration that a user starts from: three layers of 256
// LSTM units in both directions on log-mel bands.
func Defaults() Config {
	s := defaultSetup()
	s.Layers, s.Hidden, s.Bidirectional, s.RNNDropout = 3, 256, true, 0.3
	return Config{Setup: s, Text: "text", Tokens: "char", VocabularySize: 500, Case: "keep"}
}

func defaultSetup() Setup {
	s := Setup{
		Audio: "audio", Holdout: 0.1,
		Features: "logmel", Frame: 25, Hop: 10, Bands: 80, Coefficients: 13, Stack: 3,
		RNNConfig: nn.DefaultRNN(), Dropout: 0.3,
		Speed: 0.1, TimeMasks: 2, TimeMask: 0.05, BandMasks: 2, BandMask: 0.15,
		Batch: 16, BatchTime: 240, WarmupShare: 0.05, Settings: train.DefaultSettings(),
	}
	s.WeightDecay = 1e-4
	return s
}

// Validate reports the first thing wrong with a configuration, in one line; it
// is a *data.InputError.
func (c *Config) Validate() error {
	if err := settings.Check(c); err != nil {
		return data.Setting(err)
	}
	if c.LMTokens && c.LM == "" {
		return data.Errorf("lm_tokens: says what the language model is of; name its file with lm")
	}
	if c.Lexicon != "" && c.Tokens == "space" {
		return data.Errorf("lexicon: words are spelled in characters; it has no use with tokens space")
	}
	if c.Alphabet != "" && c.Tokens == "bpe" {
		return data.Errorf("alphabet: tokens bpe are learned from the training texts; leave it out")
	}
	return c.Setup.Validate()
}

// Validate is [Config.Validate] of the settings in common.
func (c *Setup) Validate() error {
	rnn := c.RNNConfig
	if rnn.Layers == 1 {
		rnn.RNNDropout = 0 // as settle has it
	}
	if err := cmp.Or(settings.Check(c), rnn.Validate()); err != nil {
		return data.Setting(err)
	}
	if c.MinLR > c.LR {
		return data.Errorf("min_lr: want at most lr (%v), got %v", c.LR, c.MinLR)
	}
	if c.StackStride > c.Stack {
		return data.Errorf("stack_stride: want at most stack (%d), or frames would be lost; got %d", c.Stack, c.StackStride)
	}
	if c.Hop > c.Frame {
		return data.Errorf("hop: want at most frame (%v ms), or sound between frames would be lost; got %v", c.Frame, c.Hop)
	}
	rate := c.Rate
	if rate == 0 {
		rate = 16000
	}
	spec := c.specAt(rate)
	if err := spec.Check(); err != nil {
		return data.Errorf("%w", err)
	}
	return nil
}

// specAt is the features of sounds of so many samples a second.
func (c *Setup) specAt(rate int) audio.Spec {
	samples := func(ms float64) int { return int(math.Round(ms * float64(rate) / 1000)) }
	s := audio.Spec{Rate: rate, Window: samples(c.Frame), Hop: samples(c.Hop), Bands: c.Bands, Preemphasis: c.Preemphasis}
	if c.Features == "mfcc" {
		s.MFCC = c.Coefficients
	}
	return s
}

// skip is the frames from one step of the network to the next.
func (c *Setup) skip() int {
	if c.StackStride == 0 {
		return c.Stack
	}
	return c.StackStride
}

// stepSeconds is the time from one step of the network to the next.
func (c *Setup) stepSeconds() float64 { return c.Hop / 1000 * float64(c.skip()) }

// settle fills in what the empty settings leave to the others.
func (c *Setup) settle() {
	if c.Normalize == "" {
		c.Normalize = "utterance"
		if !c.Bidirectional {
			c.Normalize = "running"
		}
	}
	if c.StackStride == 0 {
		c.StackStride = c.Stack
	}
	if c.Layers == 1 {
		c.RNNDropout = 0 // the default is more, which is no mistake of someone who asks for one layer
	}
}
