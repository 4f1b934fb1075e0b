package cache

import "slices"

// excess returns, of entries in the order of their last use, those to be removed so that all take at most
// limit bytes. Each is the longest unused entry of the tenant whose entries take most at that point. So a
// tenant that fills the cache displaces its own entries first, until the others' are as large. Entries in use
// stay. A tenant whose entries take at most an equal share of the limit loses none, even if the others'
// entries in use keep the limit exceeded.
func excess(all []Info, limit int64) []Info {
	var total int64
	sizes := map[string]int64{}
	idle := map[string][]Info{}
	for _, info := range all {
		total += info.Size
		sizes[info.Tenant] += info.Size
		if !info.InUse {
			idle[info.Tenant] = append(idle[info.Tenant], info)
		}
	}
	share := limit / int64(max(1, len(sizes)))
	var found []Info
	for total > limit && len(idle) > 0 {
		tenant := largest(idle, sizes)
		if sizes[tenant] <= share {
			break
		}
		info := idle[tenant][0]
		if idle[tenant] = idle[tenant][1:]; len(idle[tenant]) == 0 {
			delete(idle, tenant)
		}
		total -= info.Size
		sizes[tenant] -= info.Size
		found = append(found, info)
	}
	return found
}

// largest returns the tenant that has an idle entry and whose entries take most; of equals the one with the
// longest unused entry.
func largest(idle map[string][]Info, sizes map[string]int64) string {
	tenants := make([]string, 0, len(idle))
	for tenant := range idle {
		tenants = append(tenants, tenant)
	}
	return slices.MaxFunc(tenants, func(a, b string) int {
		if sizes[a] != sizes[b] {
			if sizes[a] > sizes[b] {
				return 1
			}
			return -1
		}
		return idle[b][0].Used.Compare(idle[a][0].Used)
	})
}
