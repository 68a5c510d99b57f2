package speech

import (
	"cmp"
	"os"
	"path/filepath"
	"testing"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/task"
)

// A sound is recognised in another file and another format.
func TestSoundIsRecognised(t *testing.T) {
	const dir = "../audio/testdata/"
	moved := filepath.Join(t.TempDir(), "moved.wav")
	sound, err := audio.Read(dir + "s8.flac")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(moved)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmp.Or(audio.WriteWAV(f, sound), f.Close()); err != nil {
		t.Fatal(err)
	}
	learnt := &Data{features: &features{}, Parts: task.Parts[Utterance]{Training: []Utterance{{Audio: dir + "s8.flac", Text: "one"}}}}
	var m task.Memory
	learnt.Remember(&m)
	for path, want := range map[string]task.Part{moved: task.Training, dir + "s8.flac": task.Training, dir + "s16.wav": task.Test, dir + "u8.wav": task.Test, "none.wav": task.Test} {
		for _, text := range []string{"one", "two"} {
			d := &Data{Parts: task.Parts[Utterance]{Whole: []Utterance{{Audio: path, Text: text}}}}
			if err := d.Recognise(t.Context(), &m); err != nil {
				t.Fatal(err)
			}
			if d.Has(task.Training) != (want == task.Training && text == "one") {
				t.Errorf("%s, %s: %+v", path, text, d.Parts)
			}
		}
	}
}
