package train

import (
	"strings"
	"testing"
)

// The program is described by its file, and ranks that run others are told so.
func TestProgram(t *testing.T) {
	own := program()
	if !strings.Contains(own, "with checksum") || program() != own {
		t.Errorf("the program is %q", own)
	}
	first := introduction{Program: own}
	for _, c := range []struct {
		theirs introduction
		want   string
	}{
		{introduction{Program: own}, ""},
		{introduction{Program: "v1 with checksum 0"}, "runs another program (v1 with checksum 0) than rank 0 (" + own + "); start the same file on all ranks"},
		{introduction{Program: own, Options: []option{{"epochs", "3"}}}, "has epochs: 3, rank 0 has none; give all ranks the same settings"},
		{introduction{Program: own, Step: 3, Checkpoint: "a"}, "goes on from step 3, rank 0 from step 0; let all ranks see the directory in which rank 0 writes its checkpoints"},
		{introduction{Program: own, Checkpoint: "a"}, "goes on from another checkpoint of step 0 than rank 0; let all ranks see the directory in which rank 0 writes its checkpoints"},
	} {
		if got := c.theirs.differs(&first); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
