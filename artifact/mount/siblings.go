package mount

// maxSiblings is how many files of a tree are fetched ahead.
const maxSiblings = 32

// siblings fetches small files ahead when the files of a tree are read in order: each alone would be a request whose
// answer the reader waits for.
type siblings struct {
	order   []*node // in the order of their paths
	last    int     // place of the last that was opened
	run     int     // how many were opened in order
	planned int     // the place before which all were fetched
}

// opened notes that a file was opened. The caller holds the lock of the files.
func (s *siblings) opened(n *node) {
	if n.place == 0 { // not of the tree as it began
		return
	}
	switch place := n.place - 1; place {
	case s.last:
		return
	case s.last + 1:
		s.run++
		s.last = place
	default:
		s.run, s.last, s.planned = 0, place, place+1
		return
	}
	end := min(s.last+1+min(2*(s.run-1), maxSiblings), len(s.order))
	for s.planned = max(s.planned, s.last+1); s.planned < end; s.planned++ {
		if next := s.order[s.planned]; next.lazy && next.links > 0 && !next.object.Prefetch() {
			return
		}
	}
}
