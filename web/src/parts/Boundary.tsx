import { Component, type ReactNode } from 'react';
import { Trouble } from './Trouble';

// Boundary keeps an error in one view from taking the whole page away.
export class Boundary extends Component<{ children: ReactNode }, { error: unknown }> {
  override state: { error: unknown } = { error: null };

  static getDerivedStateFromError(error: unknown) {
    return { error };
  }

  override render() {
    return this.state.error === null ? this.props.children : <Trouble error={this.state.error} />;
  }
}
