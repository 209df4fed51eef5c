// The JSON types of the API by their short names. schema.d.ts is generated from
// the description that the daemon serves.
import type { components } from './schema';

type S = components['schemas'];

export type Status = S['Status'];
export type Node = S['Node'];
export type Group = S['Group'];
export type Resource = S['Resource'];
export type Monitor = S['Monitor'];
export type Mirror = S['Mirror'];
export type MirrorCopy = S['MirrorCopy'];
export type Link = S['Link'];
export type Maintenance = S['Maintenance'];
export type Event = S['Event'];
export type Begun = S['Begun'];
export type ConfigVersion = S['ConfigVersion'];
export type ConfigPlan = S['ConfigPlan'];
export type HostAnswer = S['HostAnswer'];
export type User = S['User'];
export type SimulateRequest = S['SimulateRequest'];
export type Simulation = S['Simulation'];
export type SimStep = S['SimStep'];
export type SimGroup = S['SimGroup'];

export type Role = 'read' | 'operate' | 'configure' | 'fence' | 'request';
export const roles: readonly Role[] = ['read', 'operate', 'request', 'fence', 'configure'];

// Session is what the console itself tells of who has signed in.
export interface Session {
  user: string;
  roles: Role[];
  cluster: string;
  node: string;
  version: string;
  expires: string;
  elsewhere: Elsewhere[] | null;
}

// Elsewhere is the console of another node.
export interface Elsewhere {
  node: string;
  origin: string;
}
