package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/audio/denoise"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/model"
)

func (a *app) denoiseCommand() *cobra.Command {
	var weights, out string
	var raw int
	c := &cobra.Command{
		Use:   "denoise FILE|- --model FILE --out FILE|-",
		Short: "Remove the noise from speech",
		Long: `Removes noise from speech in a sound file (WAV or FLAC), or - for sound from standard
input, with the first network of RNNoise. --model is its file weights.rnn, which is not
a part of Carousel.

The network hears 48,000 samples per second; sound of another rate is resampled, and
written at its own rate again. Several channels are averaged. --out - writes to
standard output while the sound arrives, 10 ms late; Ctrl-C ends sound from standard
input, and what came until then is kept.`,
		Example: `  carousel denoise call.wav --model weights.rnn --out clean.wav
  arecord -f S16_LE -r 48000 -t wav | carousel denoise - --model weights.rnn --out - | aplay
  ffmpeg -i talk.mp4 -f s16le -ac 1 -ar 48000 - | carousel denoise - --raw 48000 --model weights.rnn --out talk.wav`,
		GroupID: groupWork,
		Args:    oneArg("a sound file, or - for standard input"),
	}
	c.Flags().StringVar(&weights, "model", "", "`file` of the network, weights.rnn of RNNoise")
	c.Flags().StringVar(&out, "out", "", "WAV `file` to write, 16 bit in one channel; - is standard output")
	c.Flags().IntVar(&raw, "raw", 0, "standard input has no header: 16 bit little-endian samples of one channel at this `rate`")
	c.RunE = func(c *cobra.Command, args []string) error {
		switch {
		case weights == "":
			return misusef("denoise needs --model, the weights.rnn of RNNoise")
		case out == "":
			return misusef("denoise needs --out, the WAV file to write, or - for standard output")
		case out == data.Stdin && a.json:
			return misusef("--json and --out - exclude each other: both are for standard output")
		case raw != 0 && args[0] != data.Stdin:
			return misusef("--raw is only for sound from standard input, -")
		}
		m, err := denoise.Open(weights)
		if err != nil {
			return err
		}
		ctx, stop := a.catchInterrupt(c.Context())
		defer stop()
		var in *audio.Reader
		result := &denoised{Input: args[0], Out: out}
		if args[0] == data.Stdin {
			result.Input = "standard input"
			in, err = openStream(a.stdin, raw)
		} else {
			in, err = audio.Open(args[0])
		}
		if err != nil {
			return err
		}
		defer in.Close()
		if in.Channels > 1 {
			a.remark(fmt.Sprintf("%s has %d channels, which are averaged.", result.Input, in.Channels))
		}
		if in.Rate != denoise.Rate {
			a.remark(fmt.Sprintf("%s has %d samples per second and is resampled to %d, and back.", result.Input, in.Rate, denoise.Rate))
		}
		write := func(w io.Writer) error { return a.denoise(ctx, m, in, args[0] == data.Stdin, w, result) }
		if out == data.Stdin {
			if err = write(struct{ io.Writer }{a.stdout}); err == nil { // where it begins is not known, so its header stays
				a.note("%s", result)
			}
			return err
		}
		if err := model.WriteFileAtomic(out, write); err != nil {
			return err
		}
		return a.emit("denoise", result, func(w io.Writer) { fmt.Fprintln(w, result) })
	}
	return c
}

// denoised is what was done to a sound.
type denoised struct {
	Input    string  `json:"input"`    // the file read, or "standard input"
	Out      string  `json:"out"`      // the file written
	Rate     int     `json:"rate"`     // samples per second of both
	Seconds  float64 `json:"seconds"`  // of sound
	Frames   int     `json:"frames"`   // of 10 ms that the network heard
	Speech   float64 `json:"speech"`   // mean probability that a frame is speech
	RealTime float64 `json:"realtime"` // seconds of computing for each second of sound
}

func (d *denoised) String() string {
	return fmt.Sprintf("%s: %.1f s denoised in %.2g of the time they last; the mean probability of speech is %.2f.", d.Out, d.Seconds, d.RealTime, d.Speech)
}

// denoise writes the sound of in to w while it arrives. Ctrl-C ends a live sound, and is
// an error in a file.
func (a *app) denoise(ctx context.Context, m *denoise.Model, in *audio.Reader, live bool, w io.Writer, result *denoised) error {
	out, err := audio.NewWAVWriter(w, in.Rate)
	if err != nil {
		return err
	}
	s := m.NewStream(in.Rate)
	var samples int
	var taken time.Duration
	var clean []float32
	progress := func() {}
	if isTerminal(a.stderr) {
		show := a.partial()
		progress = func() { show(fmt.Sprintf("%.1f s", float64(samples)/float64(in.Rate))) }
		defer show("")
	}
	step := func(f func(dst []float32) []float32) error {
		begun := time.Now()
		clean = f(clean[:0])
		taken += time.Since(begun)
		return out.Write(clean)
	}
	sound := &arrival{in: in, ctx: ctx, piece: denoise.Frame / float64(denoise.Rate)}
	for piece := range sound.pieces {
		samples += len(piece)
		if err := step(func(dst []float32) []float32 { return s.Write(dst, piece) }); err != nil {
			return err
		}
		progress()
	}
	switch {
	case sound.err == context.Canceled && !live:
		return &interrupted{"interrupted"}
	case sound.err != nil && sound.err != context.Canceled:
		return sound.err
	case samples == 0 && sound.err != nil:
		return &interrupted{"interrupted before there was any sound"}
	case samples == 0:
		return &data.InputError{File: result.Input, Problem: "holds no sound: its length is zero"}
	}
	if err := cmp.Or(step(s.Flush), out.Close()); err != nil {
		return err
	}
	result.Rate, result.Seconds = in.Rate, float64(samples)/float64(in.Rate)
	result.Frames, result.Speech, result.RealTime = s.Frames(), s.MeanSpeech(), taken.Seconds()/result.Seconds
	return nil
}
