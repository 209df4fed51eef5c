import type { Role } from '../api/types';

// may says whether somebody with these roles may do what takes that one. The
// daemon decides again; this only keeps from offering what would be refused.
export function may(roles: readonly string[] | null | undefined, need: Role): boolean {
  return roles?.includes(need) ?? false;
}
