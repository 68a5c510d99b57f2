// Speechdata writes manifests of two public sets of recordings, for recipes/.
//
//	go run ./examples/speechdata digits DIR OUT    Free Spoken Digit Dataset: DIR holds recordings/*.wav
//	go run ./examples/speechdata an4 DIR OUT       CMU AN4: DIR holds etc/ and feat/ (Sphinx features)
//
// For the digits it also joins strings of three to seven recordings of one
// speaker, with 50 to 200 ms of silence between them. Each part has different
// recordings: 0 to 4 of each digit and speaker are for the test, 5 to 9 for
// validation, the others for training. In a column without_SPEAKER all
// recordings of that speaker are for the test.
package main

import (
	"encoding/csv"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/audio"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 4 {
		log.Fatal("usage: speechdata digits|an4 DIR OUT")
	}
	in, err := filepath.Abs(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	write := map[string]func(in, out string) error{"digits": digits, "an4": an4}[os.Args[1]]
	if write == nil {
		log.Fatalf("unknown set %q: want digits or an4", os.Args[1])
	}
	if err := os.MkdirAll(os.Args[3], 0o777); err != nil {
		log.Fatal(err)
	}
	if err := write(in, os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

func writeTable(path string, rows [][]string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := csv.NewWriter(f).WriteAll(rows); err != nil {
		return err
	}
	return f.Close()
}

var words = strings.Fields("zero one two three four five six seven eight nine")

// recording is a file DIGIT_SPEAKER_INDEX.wav.
type recording struct {
	path, speaker, part string
	digit               int
}

func recordings(dir string) ([]recording, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "recordings", "*.wav"))
	if err != nil || len(paths) == 0 {
		return nil, fmt.Errorf("%s holds no recordings/*.wav", dir)
	}
	slices.Sort(paths)
	var list []recording
	for _, path := range paths {
		fields := strings.Split(strings.TrimSuffix(filepath.Base(path), ".wav"), "_")
		if len(fields) != 3 {
			return nil, fmt.Errorf("%s: want DIGIT_SPEAKER_INDEX.wav", path)
		}
		digit, err1 := strconv.Atoi(fields[0])
		index, err2 := strconv.Atoi(fields[2])
		if err1 != nil || err2 != nil || digit < 0 || digit > 9 {
			return nil, fmt.Errorf("%s: want DIGIT_SPEAKER_INDEX.wav", path)
		}
		part := "train"
		if index < 5 {
			part = "test"
		} else if index < 10 {
			part = "validation"
		}
		list = append(list, recording{path, fields[1], part, digit})
	}
	return list, nil
}

// digits writes digits.csv, single digits, and strings.csv, connected ones.
func digits(in, out string) error {
	list, err := recordings(in)
	if err != nil {
		return err
	}
	var speakers []string
	for _, r := range list {
		if !slices.Contains(speakers, r.speaker) {
			speakers = append(speakers, r.speaker)
		}
	}
	rows := [][]string{{"audio", "text", "speaker", "part"}}
	for _, speaker := range speakers {
		rows[0] = append(rows[0], "without_"+speaker)
	}
	for _, r := range list {
		row := []string{r.path, words[r.digit], r.speaker, r.part}
		for _, speaker := range speakers {
			part := "train"
			if r.speaker == speaker {
				part = "test"
			} else if r.part == "validation" {
				part = "validation"
			}
			row = append(row, part)
		}
		rows = append(rows, row)
	}
	if err := writeTable(filepath.Join(out, "digits.csv"), rows); err != nil {
		return err
	}
	rows = [][]string{{"audio", "text", "speaker", "part"}}
	random := rand.New(rand.NewPCG(1, 2026))
	for _, part := range []struct {
		name string
		each int // strings of a speaker
	}{{"train", 400}, {"validation", 20}, {"test", 50}} {
		for _, speaker := range speakers {
			own := slices.DeleteFunc(slices.Clone(list), func(r recording) bool { return r.speaker != speaker || r.part != part.name })
			for i := range part.each {
				name := fmt.Sprintf("%s_%s_%03d.wav", part.name, speaker, i)
				text, err := join(random, own, filepath.Join(out, name))
				if err != nil {
					return err
				}
				rows = append(rows, []string{name, text, speaker, part.name})
			}
		}
	}
	return writeTable(filepath.Join(out, "strings.csv"), rows)
}

// join writes a string of digits and returns its text.
func join(random *rand.Rand, own []recording, path string) (string, error) {
	var said []string
	s := &audio.Sound{}
	for i := range 3 + random.IntN(5) {
		r := own[random.IntN(len(own))]
		one, err := audio.Read(r.path)
		if err != nil {
			return "", err
		}
		s.Rate = one.Rate
		if i > 0 {
			s.Samples = append(s.Samples, make([]float32, one.Rate*(50+random.IntN(151))/1000)...)
		}
		s.Samples = append(s.Samples, one.Samples...)
		said = append(said, words[r.digit])
	}
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if err := audio.WriteWAV(f, s); err != nil {
		return "", err
	}
	return strings.Join(said, " "), f.Close()
}

// an4 writes train.csv and test.csv.
func an4(in, out string) error {
	for _, part := range []string{"train", "test"} {
		ids, err := os.ReadFile(filepath.Join(in, "etc", "an4_"+part+".fileids"))
		if err != nil {
			return err
		}
		texts, err := os.ReadFile(filepath.Join(in, "etc", "an4_"+part+".transcription"))
		if err != nil {
			return err
		}
		rows := [][]string{{"audio", "text", "speaker"}}
		lines := strings.Split(strings.TrimSpace(string(texts)), "\n")
		for i, id := range strings.Fields(string(ids)) {
			if i >= len(lines) {
				return fmt.Errorf("%s: more files than texts", in)
			}
			text, name, _ := strings.Cut(lines[i], "(")
			if strings.TrimSuffix(strings.TrimSpace(name), ")") != filepath.Base(id) {
				return fmt.Errorf("%s: line %d: the text is of %s, the file %s", in, i+1, name, id)
			}
			text = strings.NewReplacer("<s>", "", "</s>", "").Replace(text)
			rows = append(rows, []string{filepath.Join(in, "feat", id+".mfc"), strings.TrimSpace(text), filepath.Base(filepath.Dir(id))})
		}
		if err := writeTable(filepath.Join(out, part+".csv"), rows); err != nil {
			return err
		}
	}
	return nil
}
