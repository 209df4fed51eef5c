import '@patternfly/react-core/dist/styles/base.css';
import './app.css';
import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { createRoot } from 'react-dom/client';
import { BrowserRouter } from 'react-router';
import { Problem } from './api/client';
import { App } from './App';
import { Texts } from './i18n/context';
import { applyTheme } from './theme';

applyTheme();
const queries = new QueryClient({
  defaultOptions: {
    queries: {
      retry: (n, e) => n < 2 && !(e instanceof Problem && e.status >= 400 && e.status < 500),
      refetchOnWindowFocus: false,
    },
  },
});
const root = document.getElementById('root');
if (root) {
  createRoot(root).render(
    <QueryClientProvider client={queries}>
      <Texts>
        <BrowserRouter>
          <App />
        </BrowserRouter>
      </Texts>
    </QueryClientProvider>,
  );
}
