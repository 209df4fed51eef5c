import type { Elsewhere } from './api/types';

// ticketMark stands before a ticket in an address, behind the path: what follows a
// # is sent to nobody.
export const ticketMark = '#ticket=';

// move opens the same view at another node.
export function move(to: Elsewhere, ticket: string | null): void {
  location.assign(to.origin + location.pathname + location.search + (ticket === null ? '' : ticketMark + ticket));
}
