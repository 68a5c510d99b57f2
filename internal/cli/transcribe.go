package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/task/transcribe"
)

func (a *app) transcribeCommand() *cobra.Command {
	var raw int
	var words bool
	c := &cobra.Command{
		Use:   "transcribe DIR FILE...|-",
		Short: "Transcribe sound files or a stream",
		Long: `Transcribes sound files (WAV or FLAC), or - for sound from standard input. A
model that reads forward only transcribes a stream while it arrives and shows the
text so far; its final text is that of the whole sound. Ctrl-C ends the
stream, and the text is that of the sound until then.

Files that cannot be used are listed at the end, after the texts of the others.

--json gives words with their times and confidence too.`,
		Example: `  carousel transcribe run call.wav
  carousel transcribe run *.flac --n-best 3 --json
  arecord -f S16_LE -r 16000 -t wav | carousel transcribe run -
  ffmpeg -i talk.mp4 -f s16le -ac 1 -ar 16000 - | carousel transcribe run - --raw 16000`,
		GroupID: groupWork,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 2 {
				return misusef("transcribe needs a model directory and sound files, or - for standard input; see %s --help", c.CommandPath())
			}
			return nil
		},
	}
	var o transcribe.PredictOptions
	given := optionFlags(c.Flags(), nil, &o)
	c.Flags().BoolVar(&words, "words", false, "show each word with its time and confidence")
	a.computes.bind(c.Flags())
	c.Flags().IntVar(&raw, "raw", 0, "standard input has no header: 16 bit little-endian samples of one channel at this `rate`")
	c.RunE = func(c *cobra.Command, args []string) error {
		on, err := a.device()
		if err != nil {
			return err
		}
		m, err := transcribe.Open(args[0], on)
		if err != nil {
			return err
		}
		if err := given.takeOver(&task.Trained{Model: m, Kind: transcribe.Task}, &o); err != nil {
			return err
		}
		files := args[1:]
		switch {
		case slices.Contains(files, "-") && len(files) > 1:
			return misusef("transcribe: - is standard input, which must be the only file")
		case files[0] == "-":
			return a.transcribeStream(c.Context(), m, &o, raw, words)
		case raw != 0:
			return misusef("--raw is only for sound from standard input, -")
		}
		ctx, stop := a.catchInterrupt(c.Context()) // so that no half of an object is left
		defer stop()
		parts := func(yield func(task.Prediction, error) bool) {
			for t, err := range m.EachFile(ctx, files, &o) {
				if t == nil {
					yield(nil, err)
					return
				}
				if !yield(t, err) {
					return
				}
			}
		}
		return a.emitParts(ctx, "transcribe", "", parts, func(p task.Prediction) error {
			if words {
				return a.humanly(p.(*transcribe.Transcripts).PrintWords)
			}
			return a.humanly(p.Print)
		})
	}
	return c
}

// streamed is the transcript of standard input.
type streamed struct {
	Task string `json:"task"` // the task of the model
	*transcribe.Transcript
	Lag      float64 `json:"lag"`      // seconds of sound after a moment that the network waits for
	Slowest  float64 `json:"slowest"`  // seconds that the slowest piece took
	RealTime float64 `json:"realtime"` // seconds of computing for each second of sound
}

// pieceSeconds is how much of a stream is transcribed at a time.
const pieceSeconds = 0.1

// transcribeStream transcribes standard input while it arrives, if the model can.
// If the sound breaks off in the middle, the text until then is the result.
func (a *app) transcribeStream(ctx context.Context, m *transcribe.Model, o *transcribe.PredictOptions, raw int, words bool) error {
	in, err := openStream(a.stdin, raw)
	if err != nil {
		return err
	}
	ctx, stop := a.catchInterrupt(ctx)
	defer stop()
	sound := &arrival{in: in, ctx: ctx, piece: pieceSeconds}
	var out streamed
	if m.Streams() {
		out, err = a.transcribeArriving(m, o, sound)
	} else {
		a.note("The model needs the whole sound (it reads in both directions, or normalises over utterances), so it waits for the end.")
		out, err = transcribeWhole(m, o, sound)
	}
	switch {
	case err != nil:
		return err
	case out.Seconds == 0 && sound.err == context.Canceled:
		return &interrupted{"interrupted before there was any sound"}
	case out.Seconds == 0 && sound.err != nil:
		return sound.err
	case out.Seconds == 0:
		return &data.InputError{File: "standard input", Problem: "holds no sound: its length is zero"}
	}
	out.Task = transcribe.Name
	a.remarks(out.Remarks())
	failed := sound.err
	if failed == context.Canceled {
		failed = nil // Ctrl-C is a way to end the sound
	}
	return cmp.Or(a.emitBeside(failed, "transcribe.stream", &out, func(w io.Writer) {
		out.Transcript.Print(w, words)
		a.note("Transcribed %.1f s in %.2g of the time it lasts; a word is recognised %.2f s after it is spoken, the slowest piece took %.3f s.",
			out.Seconds, out.RealTime, out.Lag+pieceSeconds, out.Slowest)
	}), failed)
}

func openStream(r io.Reader, raw int) (*audio.Reader, error) {
	if raw != 0 {
		return audio.NewRawReader(r, "standard input", raw)
	}
	return audio.NewReader(r, "standard input")
}

// arrival is sound that arrives piece by piece, until it ends or Ctrl-C ends it.
type arrival struct {
	in    *audio.Reader
	ctx   context.Context
	piece float64 // seconds
	err   error   // why it ended; nil at the end of the sound
}

// pieces gives the sound. It does not wait for a read that Ctrl-C came before.
func (s *arrival) pieces(yield func([]float32) bool) {
	type piece struct {
		samples []float32
		err     error
	}
	arrived := make(chan piece)
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			p := piece{samples: make([]float32, max(1, int(s.piece*float64(s.in.Rate))))}
			var n int
			n, p.err = s.in.Read(p.samples)
			p.samples = p.samples[:n]
			select {
			case arrived <- p:
			case <-done:
				return
			}
			if p.err != nil {
				return
			}
		}
	}()
	for {
		select {
		case <-s.ctx.Done():
			s.err = s.ctx.Err()
			return
		case p := <-arrived:
			if p.err != nil && p.err != io.EOF {
				s.err = p.err
			}
			if !yield(p.samples) || p.err != nil {
				return
			}
		}
	}
}

func transcribeWhole(m *transcribe.Model, o *transcribe.PredictOptions, sound *arrival) (out streamed, err error) {
	s := &audio.Sound{Rate: sound.in.Rate}
	for piece := range sound.pieces {
		s.Samples = append(s.Samples, piece...)
	}
	out.Transcript = &transcribe.Transcript{}
	if len(s.Samples) == 0 {
		return out, nil
	}
	begun := time.Now()
	// What ended the sound does not end its transcription.
	if out.Transcript, err = m.Transcribe(context.WithoutCancel(sound.ctx), s, o); err != nil {
		return out, err
	}
	out.Lag, out.Slowest = s.Seconds(), time.Since(begun).Seconds()
	out.RealTime = out.Slowest / s.Seconds()
	return out, nil
}

// transcribeArriving shows the text so far on stderr, if that is a terminal.
func (a *app) transcribeArriving(m *transcribe.Model, o *transcribe.PredictOptions, sound *arrival) (out streamed, err error) {
	s, err := m.NewStream(sound.ctx, sound.in.Rate, o)
	if err != nil {
		return out, err
	}
	show := a.partial()
	var taken time.Duration
	timed := func(f func()) {
		begun := time.Now()
		f()
		once := time.Since(begun)
		taken += once
		out.Slowest = math.Max(out.Slowest, once.Seconds())
	}
	for piece := range sound.pieces {
		timed(func() {
			s.Write(piece)
			show(s.Partial().Text)
		})
	}
	timed(func() { out.Transcript = s.Finish() })
	show("")
	out.Lag, out.RealTime = s.Lag(), taken.Seconds()/math.Max(out.Seconds, 1e-9)
	return out, nil
}

// partial shows text that may still change: one line that is overwritten on a
// terminal, a line for each change elsewhere, nothing with --quiet. "" removes the
// line.
func (a *app) partial() func(string) {
	if a.quiet {
		return func(string) {}
	}
	terminal := isTerminal(a.stderr)
	last := ""
	return func(text string) {
		if text == last {
			return
		}
		last = text
		switch {
		case terminal:
			fmt.Fprintf(a.stderr, "\r\x1b[K%s", tail(text, width(a.stderr)-1))
		case text != "":
			fmt.Fprintf(a.stderr, "... %s\n", text)
		}
	}
}

// tail is the end of a text that fits into n columns.
func tail(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return "…" + strings.TrimSpace(string(r[len(r)-n+1:]))
	}
	return s
}
